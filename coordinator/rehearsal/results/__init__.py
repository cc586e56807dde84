"""The comparison behind `make results`: what federated training costs and gains, beside central training."""
