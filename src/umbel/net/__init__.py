"""Socket reader, byte streams, timer queue and exception groups on trio, without any HTTP."""
