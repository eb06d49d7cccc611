# An app that `coremachine serve` runs: docs/howto/containers.md. Built from the checkout; a project of your own
# starts `FROM` it and copies its folder to /app.
FROM python:3.13-slim-bookworm AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/coremachine
COPY deploy/container/requirements.txt ./requirements.txt
# The locked versions, each with its hash; wheels alone, so that no compiler is needed.
RUN /opt/coremachine/bin/pip install --no-deps --require-hashes --only-binary :all: --requirement requirements.txt
COPY pyproject.toml README.md LICENSE MANIFEST.in CHANGELOG.md function_app.py host.json ./
COPY .ci/wheel .ci/wheel
COPY core core
COPY coremachine coremachine
COPY infrastructure infrastructure
COPY jobs jobs
COPY sql sql
COPY triggers triggers
RUN /opt/coremachine/bin/pip install --no-deps . \
    && /opt/coremachine/bin/python -m compileall -q /opt/coremachine/lib

FROM python:3.13-slim-bookworm
# tini is process 1: it collects processes that handlers leave behind, and passes SIGTERM on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-create-home --home-dir /app --shell /usr/sbin/nologin app
COPY --from=build /opt/coremachine /opt/coremachine
ENV PATH=/opt/coremachine/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    COREMACHINE_LOG_FORMAT=json
WORKDIR /app
USER 10001:10001
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8081/livez', timeout=2)"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["coremachine", "serve", "--host", "0.0.0.0"]
