"""Money that comes and goes through Stripe: the simulator, top-ups, webhooks, refunds, disputes, subscriptions."""
