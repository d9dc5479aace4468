"""Why a login is as it is, or was lost: verdicts in plain words, with stable codes and the events that prove them."""

from projections.explain.codes import TokensCode, VerdictCode
from projections.explain.explaining import explain
from projections.explain.stored import explain_tokens
from projections.explain.verdict import StoredTokens, Verdict

__all__ = ["StoredTokens", "TokensCode", "Verdict", "VerdictCode", "explain", "explain_tokens"]
