"""Time, memory and error of every implementation, beside stock attention without the mass."""
