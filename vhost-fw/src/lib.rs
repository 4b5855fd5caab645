//! The I/O shell around [`fw_engine`]: queues, uplink, worker, control socket.
