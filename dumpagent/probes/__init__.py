"""Answers to those who ask about a daemon: the exec probe and HTTP."""
