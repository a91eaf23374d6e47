"""What every role shares: the wire, the lane, the link, the configuration and the frame of a process."""
