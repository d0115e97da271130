"""What the gateway adds for each coding tool: versioned texts that never change once landed, and how they enter a request."""
