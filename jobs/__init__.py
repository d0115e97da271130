"""What happens later: each job makes one domain call, and its truth is a row."""
