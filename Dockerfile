# One image for each service: `docker build --target gateway .`, or all of them with compose.yaml.
ARG PYTHON=3.12-slim

FROM python:${PYTHON} AS base
ENV PATH=/opt/loratory/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
# Create the data folders here, so that a new volume belongs to this user and not to root.
RUN useradd --uid 10001 --user-group --no-create-home loratory \
    && mkdir -p /data/catalog /data/blobs /data/staging /data/models /data/bases /data/cache /data/work /data/loras \
    && chown -R 10001:10001 /data
STOPSIGNAL SIGTERM

FROM base AS source
WORKDIR /src
RUN python -m venv /opt/loratory
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY contracts contracts
COPY catalog catalog
COPY gateway gateway
COPY tagger tagger
COPY trainer trainer
COPY loratory loratory
COPY demo_world demo_world

FROM source AS built-init
RUN pip install --no-cache-dir --constraint constraints.txt .
FROM source AS built-catalog
RUN pip install --no-cache-dir --constraint constraints.txt ".[catalog]"
FROM source AS built-gateway
RUN pip install --no-cache-dir --constraint constraints.txt ".[gateway]"
FROM source AS built-tagger
RUN pip install --no-cache-dir --constraint constraints.txt ".[tagger]"
FROM source AS built-trainer
RUN pip install --no-cache-dir --constraint constraints.txt ".[trainer]"

FROM base AS init
COPY --from=built-init /opt/loratory /opt/loratory
USER 10001:10001
CMD ["python", "-P", "-m", "contracts"]

FROM base AS catalog
COPY --from=built-catalog /opt/loratory /opt/loratory
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "-P", "-m", "catalog", "--check"]
CMD ["python", "-P", "-m", "catalog"]

FROM base AS gateway
COPY --from=built-gateway /opt/loratory /opt/loratory
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "-P", "-m", "gateway", "--check"]
CMD ["python", "-P", "-m", "gateway"]

FROM base AS tagger
COPY --from=built-tagger /opt/loratory /opt/loratory
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["python", "-P", "-m", "tagger", "--check"]
CMD ["python", "-P", "-m", "tagger"]

FROM base AS trainer
COPY --from=built-trainer /opt/loratory /opt/loratory
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s CMD ["python", "-P", "-m", "trainer", "--check"]
CMD ["python", "-P", "-m", "trainer"]
