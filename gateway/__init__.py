"""The gateway holds client sockets and forwards what happens on them to workers."""
