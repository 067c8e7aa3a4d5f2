"""What browsers and other clients ask of each response: CORS and security fields, and content codings."""
