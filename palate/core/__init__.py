"""The words of the house: what a dataset, a request, a ranking, a run and a report are. No torch here."""
