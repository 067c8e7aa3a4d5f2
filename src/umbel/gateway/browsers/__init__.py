"""What browsers and other clients ask of each response: content codings, for example."""
