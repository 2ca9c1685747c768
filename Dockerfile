# One image, two static programs: the operator (/manager) and the parser that it
# runs on each target (/hlparser). `make docker-build` compiles them first, so
# that the image needs neither a compiler nor a base.
FROM scratch
ARG TARGETARCH=amd64
COPY bin/linux/${TARGETARCH}/manager bin/linux/${TARGETARCH}/hlparser /
USER 65532:65532
ENTRYPOINT ["/manager"]
