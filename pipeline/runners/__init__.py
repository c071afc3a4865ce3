"""The only place that knows Ray and MLflow: jobs over datasets, their receipts and their story."""
