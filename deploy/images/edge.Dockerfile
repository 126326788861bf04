# The edge agent. Build it in the repository's root:
#   docker build -f deploy/images/edge.Dockerfile -t embridge-edge .
# Bluetooth through the host's BlueZ needs /run/dbus/system_bus_socket mounted.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/embridge/venv
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY deploy/images/requirements.py ./
RUN python requirements.py edge lsl > requirements.txt \
    && /opt/embridge/venv/bin/pip install -c constraints.txt -r requirements.txt
COPY shared shared
COPY edge edge
COPY cloud cloud
COPY tui tui
RUN /opt/embridge/venv/bin/pip install -c constraints.txt hatchling \
    && /opt/embridge/venv/bin/pip install --no-deps --no-build-isolation . \
    && /opt/embridge/venv/bin/pip uninstall -y -q hatchling pathspec pluggy trove-classifiers tomlkit setuptools pip \
    && /opt/embridge/venv/bin/python -m compileall -q /opt/embridge/venv/lib

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="EMBridge edge" org.opencontainers.image.licenses="Apache-2.0"
# Debian keeps the newest version of a package alone: the base image pins the release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /usr/local/lib/python3.11/ensurepip \
    && pip uninstall -y -q setuptools wheel pip \
    && groupadd --system --gid 10001 embridge \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/embridge --create-home --shell /usr/sbin/nologin embridge
COPY --from=build /opt/embridge /opt/embridge
COPY deploy/images/healthcheck.py /opt/embridge/healthcheck.py
ENV PATH=/opt/embridge/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    CREDENTIALS_DIRECTORY=/run/secrets \
    EMBRIDGE_CONFIG=/etc/embridge/embridge.toml \
    EMBRIDGE_EDGE__STATE_DIR=/var/lib/embridge/edge \
    EMBRIDGE_LOG__STYLE=json
WORKDIR /var/lib/embridge
USER 10001:10001
VOLUME ["/var/lib/embridge"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/embridge/healthcheck.py", "edge"]
ENTRYPOINT ["tini", "--", "embridge"]
CMD ["edge", "run"]
