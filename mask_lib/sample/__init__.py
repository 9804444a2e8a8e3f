"""A painted sample set with known faults: brush, people, portrait, crowd, faults, paint."""
