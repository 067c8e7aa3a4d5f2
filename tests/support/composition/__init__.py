"""Plans from TOML text, run over scripted calls and over sockets."""
