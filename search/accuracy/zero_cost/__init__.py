"""Zero-cost proxies: networks ranked before any training."""
