import java.io.FileInputStream;
import java.io.InputStream;
import java.util.zip.CRC32;
import java.util.zip.GZIPInputStream;

/** `java Unpack FILE` prints length and CRC32 of what a gzip file holds, as Java's own library unpacks it. */
public final class Unpack {
    public static void main(String[] args) throws Exception {
        CRC32 crc = new CRC32();
        long length = 0;
        byte[] buffer = new byte[1 << 16];
        try (InputStream in = new GZIPInputStream(new FileInputStream(args[0]), 1 << 16)) {
            for (int got = in.read(buffer); got >= 0; got = in.read(buffer)) {
                crc.update(buffer, 0, got);
                length += got;
            }
        }
        System.out.println(length + " " + crc.getValue());
    }
}
