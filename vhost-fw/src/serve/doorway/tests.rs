//! Messages through the doorway.

use std::fs::File;
use std::io::Seek;

use super::*;

fn message(request: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&request.to_le_bytes()[..], &VERSION.to_le_bytes(), &length.to_le_bytes(), body].concat()
}

/// Runs `talk` with the ends of the VMM and the library, with the doorway's carriers between them.
fn between(talk: impl FnOnce(UnixStream, UnixStream)) {
    let (vmm, outer) = UnixStream::pair().unwrap();
    let (inner, library) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        carry(scope, &outer, &inner).unwrap();
        talk(vmm, library);
    });
}

#[test]
fn the_library_first_hears_that_protocol_features_are_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut doorway = Doorway::open(&folder.path().join("door")).unwrap();
    let (listener, _inner) = doorway.lead_in().unwrap();
    let mut library = listener.accept().unwrap().unwrap();
    let mut heard = [0; 20];
    library.read_exact(&mut heard).unwrap();
    assert_eq!(heard.to_vec(), message(2, &0x4000_0000_u64.to_le_bytes()));
}

#[test]
fn descriptors_stay_with_their_message_however_the_stream_is_cut() {
    between(|mut vmm, library| {
        let file = tempfile::tempfile().unwrap();
        vmm.write_all(&message(3, &[])).unwrap();
        send(&vmm, &message(12, &[7; 8]), &[file.try_clone().unwrap().into()]).unwrap();
        vmm.write_all(&message(1, &[])[..5]).unwrap();
        vmm.write_all(&message(1, &[])[5..]).unwrap();
        let mut head = [0; HEAD];
        let mut body = [0; 8];
        assert_eq!(read_head(&library, &mut head).unwrap().unwrap().len(), 0);
        assert_eq!(head.to_vec(), message(3, &[]));
        let mut descriptors = read_head(&library, &mut head).unwrap().unwrap();
        (&library).read_exact(&mut body).unwrap();
        assert_eq!((head[0], body), (12, [7; 8]));
        let mut same = File::from(descriptors.pop().unwrap());
        (&file).write_all(b"same").unwrap();
        assert_eq!(same.stream_position().unwrap(), 4);
        same.rewind().unwrap();
        assert_eq!(read_head(&library, &mut head).unwrap().unwrap().len(), 0);
        assert_eq!(head.to_vec(), message(1, &[]));
    });
}

#[test]
fn answers_come_back() {
    between(|mut vmm, mut library| {
        library.write_all(&message(1, &[9; 8])).unwrap();
        let mut heard = [0; 20];
        vmm.read_exact(&mut heard).unwrap();
        assert_eq!(heard.to_vec(), message(1, &[9; 8]));
    });
}

#[test]
fn when_one_side_goes_the_other_is_told() {
    between(|vmm, mut library| {
        drop(vmm);
        assert_eq!(library.read(&mut [0; 1]).unwrap(), 0);
    });
    between(|mut vmm, library| {
        drop(library);
        assert_eq!(vmm.read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn a_body_longer_than_any_message_ends_the_connection() {
    between(|mut vmm, mut library| {
        vmm.write_all(&[&2_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &0x1001_u32.to_le_bytes()].concat())
            .unwrap();
        assert_eq!(library.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(vmm.read(&mut [0; 1]).unwrap(), 0);
    });
}
