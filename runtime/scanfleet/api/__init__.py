"""The HTTP API: one FastAPI app, served by uvicorn on one machine and by Lambda on AWS."""
