"""Records: their schema, the conversion of events to records, and the encoding of a record as a line of JSON."""
