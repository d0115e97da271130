"""The inference road: routes, admission, and one relay that knows no dialect."""
