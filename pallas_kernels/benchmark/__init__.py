"""Time, memory and errors of every implementation, beside stock attention without the mass."""
