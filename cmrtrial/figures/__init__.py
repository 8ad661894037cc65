"""How the trial is drawn: the figures of single pages."""
