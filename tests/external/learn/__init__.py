"""Programs of docs/learn, and what the labs say, with FastAPI, uvicorn and gunicorn: ``make external ARGS=learn``."""
