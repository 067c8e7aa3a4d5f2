"""The words of HTTP's messages that both sides share: fields, codings, media types, charsets. No I/O."""
