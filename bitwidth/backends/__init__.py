"""Backends: one folder per framework; nothing else imports a framework."""
