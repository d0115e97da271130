"""Apps, their deployments and their visitors' wallets."""
