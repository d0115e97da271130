"""Lets a client of one wire format use a model that speaks the other: pure functions over bodies, answers, streams and errors."""
