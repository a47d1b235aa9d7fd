"""How good, for whom, and how sure: metrics, protocols, intervals, comparisons. Reads ranks and Rankings, no model."""
