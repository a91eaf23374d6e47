"""The business worker runs handler modules and sends routing commands back to the gateways."""
