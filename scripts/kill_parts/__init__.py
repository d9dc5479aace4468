"""The kill campaign: agents that die at random moments, and a check of what must hold all the same."""
