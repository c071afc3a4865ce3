"""Face swapping with SimSwap as a typed library; only `pipeline.runners` knows Ray and MLflow."""
