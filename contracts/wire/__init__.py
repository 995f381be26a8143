"""The plumbing: the log, services, queue, blobs, the embedded server and the start all services share.

Only this package knows `nats` and `obstore`; everybody else speaks in the words of `contracts`.
"""
