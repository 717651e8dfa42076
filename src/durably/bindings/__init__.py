"""What functions are bound to outside of the hub: queues of brokers, blobs; how they are reached, read and written."""
