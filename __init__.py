"""Gatecrew: gateways hold the sockets of clients, stateless workers run your handlers."""

__version__ = "0.1.0"
