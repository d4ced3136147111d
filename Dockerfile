# Daemon and page, without torch. One image, two commands (see compose.yaml): `otoscope daemon` and
# `otoscope dashboard`.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY store store
COPY callbacks callbacks
COPY diagnostics diagnostics
COPY dashboard dashboard
COPY cli cli
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OTOSCOPE_HOME=/var/lib/otoscope
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/otoscope otoscope
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt /wheels/*.whl && rm -r /wheels /tmp/constraints.txt
USER otoscope
WORKDIR /var/lib/otoscope
EXPOSE 8050
# http.client: urllib would ask the proxy that Docker may have put into the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8050, timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["otoscope"]
CMD ["dashboard", "--host", "0.0.0.0"]
