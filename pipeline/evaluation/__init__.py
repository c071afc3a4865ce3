"""How good results are: metrics over crops and embeddings."""
