"""What strangers may cost: rate limits, quotas by address, and stamps."""
