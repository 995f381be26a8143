"""The infrastructure: the log, services, queue, blobs, the embedded server and the start-up all services share.

Only this package imports `nats` and `obstore`; all others use it and the types of `contracts`.
"""
