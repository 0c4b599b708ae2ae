//! Urgent data, which PostgreSQL never sends, does no harm: its byte is dropped, and what comes after it is delivered.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use super::support::{Rig, read_exactly};

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_urgent_data_are_delivered() {
    let (rig, backend) = Rig::with_user_timeout(Duration::from_secs(1)).await;
    // recv(2) stops at the mark if all of it has arrived by then: about every second time.
    for _ in 0..50 {
        let (mut client, mut leader) = rig.session(&backend).await;
        client.write_all(b"before").await.unwrap();
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        client.write_all(b"after").await.unwrap();
        assert_eq!(read_exactly(&mut leader, 11).await, b"beforeafter");
    }
}
