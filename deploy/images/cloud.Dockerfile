# The cloud process. Build it in the repository's root:
#   docker build -f deploy/images/cloud.Dockerfile -t embridge-cloud .
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
# Where torch's builds without CUDA are; the version is the constraints' own.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/embridge/venv
COPY constraints.txt pyproject.toml README.md LICENSE ./
# The dependencies are a layer of their own: they change less often than the code.
COPY deploy/images/requirements.py ./
RUN python requirements.py cloud lake > requirements.txt \
    && /opt/embridge/venv/bin/pip install --extra-index-url "${TORCH_INDEX}" -c constraints.txt -r requirements.txt
COPY shared shared
COPY edge edge
COPY cloud cloud
COPY tui tui
RUN /opt/embridge/venv/bin/pip install -c constraints.txt hatchling \
    && /opt/embridge/venv/bin/pip install --no-deps --no-build-isolation . \
    && /opt/embridge/venv/bin/pip uninstall -y -q hatchling pathspec pluggy trove-classifiers pip \
    # torch ships sources of newer Pythons, which this one cannot compile.
    && /opt/embridge/venv/bin/python -m compileall -q -x '/torch/testing/' /opt/embridge/venv/lib

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="EMBridge cloud" org.opencontainers.image.licenses="Apache-2.0"
# libgomp is torch's and faiss's; everything else is in the wheels.
# Debian keeps the newest version of a package alone: the base image pins the release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* /usr/local/lib/python3.11/ensurepip \
    && pip uninstall -y -q setuptools wheel pip \
    && groupadd --system --gid 10001 embridge \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/embridge --create-home --shell /usr/sbin/nologin embridge
COPY --from=build /opt/embridge /opt/embridge
COPY deploy/images/healthcheck.py /opt/embridge/healthcheck.py
ENV PATH=/opt/embridge/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CREDENTIALS_DIRECTORY=/run/secrets \
    EMBRIDGE_CONFIG=/etc/embridge/embridge.toml \
    EMBRIDGE_CLOUD__STATE_DIR=/var/lib/embridge/cloud \
    EMBRIDGE_LOG__STYLE=json
WORKDIR /var/lib/embridge
USER 10001:10001
VOLUME ["/var/lib/embridge"]
EXPOSE 8470
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/embridge/healthcheck.py", "cloud"]
ENTRYPOINT ["tini", "--", "embridge"]
CMD ["cloud", "run"]
