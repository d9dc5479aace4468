"""Incidents: chosen events of a ledger, to step through, save, explain and replay as they were not."""

from projections.incident.bundle import Bundle, Selection
from projections.incident.checking import BundleFinding, BundleRefused
from projections.incident.conditions import Condition, NoSuchCondition, parse_condition
from projections.incident.counterfactual import Change, Counterfactual, FieldDifference, Insertion, Outcome
from projections.incident.incident import Incident
from projections.incident.selection import NothingSelected
from projections.incident.steps import NoSuchStep, Replay, Step

__all__ = [
    "Bundle",
    "BundleFinding",
    "BundleRefused",
    "Change",
    "Condition",
    "Counterfactual",
    "FieldDifference",
    "Incident",
    "Insertion",
    "NoSuchCondition",
    "NoSuchStep",
    "NothingSelected",
    "Outcome",
    "Replay",
    "Selection",
    "Step",
    "parse_condition",
]
