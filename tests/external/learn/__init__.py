"""Programs of docs/learn that need FastAPI and uvicorn: ``make external ARGS=learn``."""
