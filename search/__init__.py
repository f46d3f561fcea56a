"""Search strategies, accuracy estimators and the loop between them."""
