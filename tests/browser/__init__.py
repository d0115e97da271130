"""Stories in a real browser; they run wherever one is found."""
